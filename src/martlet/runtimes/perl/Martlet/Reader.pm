# Reads requests from a connection, however their bytes are cut.
package Martlet::Reader;

use strict;
use warnings;
use Errno qw(EINTR);
use Martlet::Http1;

my $MAX_HEAD = 65536;

sub new {
    my ($class, $socket, $max_body) = @_;
    return bless { socket => $socket, max_body => $max_body, buffer => '' }, $class;
}

# Whether the peer has sent a part of a further request.
sub begun {
    return length $_[0]{buffer} > 0;
}

# Returns the next head; undef where the peer has closed.
sub head {
    my ($self) = @_;
    my $end;
    while (($end = index $self->{buffer}, "\r\n\r\n") < 0) {
        last if length $self->{buffer} > $MAX_HEAD;
        $self->receive or return undef;
    }
    Martlet::Http1::refuse("the request's headers are too large", 431) if $end < 0 || $end > $MAX_HEAD;
    my $head = Martlet::Http1::parse_head(substr $self->take($end + 4), 0, -4);
    $self->too_large if ($head->{length} // 0) > $self->{max_body};
    return $head;
}

sub body {
    my ($self, $head) = @_;
    return defined $head->{length} ? $self->need($head->{length}) : $self->chunks;
}

sub chunks {
    my ($self) = @_;
    my $body = '';
    while (1) {
        my ($size) = $self->line =~ /\A([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?\z/
            or Martlet::Http1::refuse('a chunk does not begin with its size');
        $size = hex $size or last;
        $self->too_large if length($body) + $size > $self->{max_body};
        $body .= $self->need($size);
        Martlet::Http1::refuse('a chunk is longer than its size says') if $self->need(2) ne "\r\n";
    }
    1 while length $self->line;    # trailers mean nothing to a function
    return $body;
}

sub line {
    my ($self) = @_;
    my $end;
    while (($end = index $self->{buffer}, "\r\n") < 0) {
        Martlet::Http1::refuse('a line between chunks is too long') if length $self->{buffer} > $MAX_HEAD;
        $self->receive or gone();
    }
    return substr $self->take($end + 2), 0, -2;
}

sub need {
    my ($self, $size) = @_;
    ($self->receive or gone()) while length $self->{buffer} < $size;
    return $self->take($size);
}

sub take {
    my ($self, $size) = @_;
    return substr $self->{buffer}, 0, $size, '';
}

sub receive {
    my ($self) = @_;
    while (1) {
        my $size = sysread $self->{socket}, $self->{buffer}, 65536, length $self->{buffer};
        return $size if defined $size;
        return 0 unless $! == EINTR;
    }
}

sub too_large {
    my ($self) = @_;
    Martlet::Http1::refuse("the request body is over $self->{max_body} bytes", 413);
}

# Dies: the peer went away before the request or the response was complete.
sub gone {
    die bless {}, 'Martlet::Disconnected';
}

1;
