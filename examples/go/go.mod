module example/addresses

go 1.24
