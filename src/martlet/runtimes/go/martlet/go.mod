module martlet

go 1.24

require github.com/open-runtimes/types-for-go/v4 v4.0.0

replace github.com/open-runtimes/types-for-go/v4 => ../openruntimes
