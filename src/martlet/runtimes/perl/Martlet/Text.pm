# Bytes and characters.
package Martlet::Text;

use strict;
use warnings;
use Encode ();

# Reads bytes as UTF-8; those that are none become U+FFFD.
sub characters {
    return Encode::decode('UTF-8', "$_[0]", Encode::FB_DEFAULT);
}

# Reads bytes of a head: UTF-8 where they are that, else Latin-1.
sub of_head {
    my ($bytes) = @_;
    my $copy = $bytes;
    return utf8::decode($copy) ? $copy : $bytes;
}

# What is sent of a string: its characters in UTF-8, or, where Perl has it as bytes, those.
sub bytes {
    my ($text) = @_;
    utf8::encode($text) if utf8::is_utf8($text);
    return $text;
}

# Undoes percent-encoding.
sub decoded {
    my ($text) = @_;
    $text =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ge;
    return characters($text);
}

# Whether bytes are UTF-8.
sub is_text {
    my ($bytes) = @_;
    return utf8::decode($bytes);
}

1;
