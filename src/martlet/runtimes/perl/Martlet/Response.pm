# What a handler may return, and what becomes of it: a body of any kind, with a status and headers.
package Martlet::Response;

use strict;
use warnings;
use JSON::PP ();
use Martlet::Http1;
use Martlet::Text;
use Scalar::Util qw(blessed openhandle reftype);

my $JSON = JSON::PP->new->utf8->allow_nonref->allow_blessed->convert_blessed;
my $PIECE = 65536;

sub new {
    my ($class, $body, $status, $headers) = @_;
    die "$status is not an HTTP status (200 to 599)\n" unless $status =~ /\A[2-5][0-9][0-9]\z/;
    return bless { body => $body, status => $status, headers => $headers }, $class;
}

# Turns whatever a handler returned into a response.
sub from {
    my ($class, $value) = @_;
    return $value if blessed $value && $value->isa($class);
    return $class->new($value, defined $value ? 200 : 204, {});
}

sub json {
    return $JSON->encode($_[0]);
}

# What returns the next piece of a streamed body, undef at its end; undef where the body is whole.
sub pieces {
    my $body = $_[0]{body};
    return $body if (reftype $body // '') eq 'CODE';
    return undef unless ref $body && openhandle $body;
    return sub {
        read($body, my $piece, $PIECE) or return undef;
        return $piece;
    };
}

# The body as bytes, and the content type it has by itself.
sub encode {
    my $body = $_[0]{body};
    return ('', undef) unless defined $body;
    return (json($body), 'application/json') if ref $body;
    return (Martlet::Text::bytes($body), type_of($body));
}

# The header lines, where the type is the content type unless the handler has named one.
sub lines {
    my ($self, $type) = @_;
    my %headers = map { lc($_) => $self->{headers}{$_} } grep { !/\Ax-open-runtimes-/i } keys %{ $self->{headers} };
    $headers{'content-type'} //= $type if defined $type;
    return Martlet::Http1::header_lines(\%headers);
}

# A string is text where it has characters, or bytes that are UTF-8.
sub type_of {
    my ($string) = @_;
    my $is_text = utf8::is_utf8($string) || Martlet::Text::is_text($string);
    return $is_text ? 'text/plain; charset=utf-8' : 'application/octet-stream';
}

1;
