# What the function prints and warns, as frames that say which request they belong to.
package Martlet::Logs;

use strict;
use warnings;
use JSON::PP ();
use Martlet::Text;
use POSIX ();
use Time::HiRes qw(time);

our $request;    # the id of the request that runs

my $FRAME = 4096;    # bytes a pipe takes without mixing them with another writer's
my $JSON = JSON::PP->new->utf8->allow_nonref;
my @streams;

sub install {
    @streams = (tie(*STDOUT, __PACKAGE__, 1, 'stdout'), tie(*STDERR, __PACKAGE__, 2, 'stderr'));
    $SIG{__WARN__} = sub { emit(2, 'warning', join '', @_) };
}

# Writes what has no line end yet as lines of their own.
sub flush {
    for my $stream (@streams) {
        emit($stream->{descriptor}, $stream->{name}, $stream->{unfinished}) if length $stream->{unfinished};
        $stream->{unfinished} = '';
    }
}

# Writes text as frames.
sub emit {
    my ($descriptor, $stream, $text) = @_;
    $text = Martlet::Text::characters(Martlet::Text::bytes($text)) =~ s/\n\z//r;
    my $head = sprintf qq(\x1e{"t":%.3f,"id":%s,"s":"%s","m":), time, $JSON->encode($request), $stream;
    my $room = $FRAME - length($head) - 2;
    do {
        my $piece = substr $text, 0, $room;
        my $json;
        $piece = substr $piece, 0, length($piece) / 2 while length($json = $JSON->encode($piece)) > $room;
        POSIX::write($descriptor, "$head$json}\n", length("$head$json}\n"));
        $text = substr $text, length $piece;
    } while (length $text);
}

sub TIEHANDLE {
    my ($class, $descriptor, $name) = @_;
    return bless { descriptor => $descriptor, name => $name, unfinished => '' }, $class;
}

sub PRINT {
    my ($self, @parts) = @_;
    my $text = join($, // '', @parts) . ($\ // '');
    my @lines = split /\n/, $self->{unfinished} . Martlet::Text::bytes($text), -1;
    $self->{unfinished} = pop @lines // '';
    emit($self->{descriptor}, $self->{name}, $_) for @lines;
    flush() if length $self->{unfinished} >= $FRAME;
    return 1;
}

sub PRINTF {
    my ($self, $format, @values) = @_;
    return $self->PRINT(sprintf $format, @values);
}

sub WRITE {
    my ($self, $data, $length, $offset) = @_;
    $self->PRINT(substr $data, $offset // 0, $length // length $data);
    return $length // length $data;
}

sub FILENO { return $_[0]{descriptor} }
sub BINMODE { return 1 }
sub CLOSE { return 1 }
sub OPEN { return 0 }

1;
