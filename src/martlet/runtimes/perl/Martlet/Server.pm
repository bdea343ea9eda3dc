# Serves descriptor 3, one request at a time. Where several may run at once there are as many processes, and one for
# probes, each with one connection.
package Martlet::Server;

use strict;
use warnings;
use Errno qw(EINTR);
use IO::Select;
use IO::Socket::UNIX;
use Martlet::Http1;
use Martlet::Logs;
use Martlet::Reader;
use Martlet::Response;
use POSIX qw(SIGTERM SIG_BLOCK SIG_UNBLOCK);

my $TERM = POSIX::SigSet->new(SIGTERM);

sub new {
    my ($class, $handler, $concurrency, $max_body) = @_;
    return bless { handler => $handler, concurrency => $concurrency, max_body => $max_body, readers => {} }, $class;
}

# Serves until SIGTERM; the request that runs then is finished.
sub run {
    my ($self) = @_;
    $self->{listener} = IO::Socket::UNIX->new_from_fd(3, 'r+') or die "descriptor 3: $!";
    $self->{listener}->blocking(0);
    if ($self->{concurrency} > 1) {
        exit share($self->{concurrency} + 1, sub { $self->serve });
    }
    $self->serve;
    exit 0;
}

sub serve {
    my ($self) = @_;
    pipe my $told, my $tell or die "a pipe: $!";
    $SIG{TERM} = sub { $self->{stopping} = 1; close $tell };
    $SIG{PIPE} = 'IGNORE';
    my $waiting = IO::Select->new($told, $self->{listener});
    while (!$self->{stopping}) {
        for my $ready ($waiting->can_read) {
            if ($ready == $self->{listener}) {
                my $socket = $ready->accept or next;
                $socket->blocking(1);
                $self->{readers}{ fileno $socket } = Martlet::Reader->new($socket, $self->{max_body});
                $waiting->add($socket);
                $waiting->remove($ready) if $self->{concurrency} > 1;
            } elsif ($ready != $told && !$self->exchange($ready)) {
                $waiting->remove($ready);
                delete $self->{readers}{ fileno $ready };
                close $ready;
                $waiting->add($self->{listener}) if $self->{concurrency} > 1;
            }
        }
    }
}

# Answers the requests that a connection has sent. Returns whether it may go on.
sub exchange {
    my ($self, $socket) = @_;
    my $reader = $self->{readers}{ fileno $socket };
    my $goes_on;
    POSIX::sigprocmask(SIG_BLOCK, $TERM);    # it would cut short what the handler waits for
    eval {
        do {
            my $head = $reader->head;
            $goes_on = $head && $self->answer($head, $reader->body($head), $socket);
        } while ($goes_on && $reader->begun);
        1;
    } or do {
        my $error = $@;
        $goes_on = 0;
        eval { send_all($socket, Martlet::Http1::problem($error)) } if ref $error eq 'Martlet::BadRequest';
    };
    POSIX::sigprocmask(SIG_UNBLOCK, $TERM);
    return $goes_on;
}

sub answer {
    my ($self, $head, $body, $socket) = @_;
    my $send = sub { send_all($socket, $_[0]) };
    if ($head->{target} =~ m{\A/_martlet/}) {
        my $known = $head->{method} eq 'GET' && $head->{target} eq '/_martlet/health';
        my $document = $known ? { status => 'ok' } : { error => { type => 'NotFound', message => 'there is no such page' } };
        my $lines = Martlet::Http1::header_lines({ 'content-type' => 'application/json' });
        $send->(Martlet::Http1::whole($head, $known ? 200 : 404, $lines, Martlet::Response::json($document)));
        return $head->{keep_alive};
    }
    local $Martlet::Logs::request = $head->{fields}{'x-request-id'};
    my $goes_on = eval { [$self->{handler}->answer($head, $body, $send)] };
    my $error = $@;
    Martlet::Logs::flush();
    die $error unless $goes_on;
    return $goes_on->[0];
}

sub send_all {
    my ($socket, $data) = @_;
    my $at = 0;
    while ($at < length $data) {
        my $sent = syswrite $socket, $data, length($data) - $at, $at;
        if (defined $sent) {
            $at += $sent;
        } elsif ($! != EINTR) {
            Martlet::Reader::gone();
        }
    }
}

# Has processes serve, which live and die together. Returns the exit code of one that ended by itself.
sub share {
    my ($count, $serve) = @_;
    my @children;
    for (1 .. $count) {
        my $child = fork // die "a process: $!";
        if (!$child) {
            $serve->();
            exit 0;
        }
        push @children, $child;
    }
    my ($stopping, $code) = (0, 0);
    local $SIG{TERM} = sub { $stopping = 1; kill TERM => @children };
    while ((my $ended = wait) > 0 || $! == EINTR) {
        next if $ended < 0 || $stopping;
        $code = $? & 127 ? 128 + ($? & 127) : $? >> 8;
        $stopping = 1;
        kill TERM => grep { $_ != $ended } @children;
    }
    return $code;
}

1;
