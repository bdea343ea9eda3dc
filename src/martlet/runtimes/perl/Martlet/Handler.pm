# Answers a request with what the user's function returns for it.
package Martlet::Handler;

use strict;
use warnings;
use Martlet::Failure;
use Martlet::Http1;
use Martlet::Logs;
use Martlet::OpenRuntimes;
use Martlet::Request;
use Martlet::Response;
use Martlet::Text;

sub new {
    my ($class, $function) = @_;
    return bless { function => $function }, $class;
}

# Answers one request by giving $send bytes. Returns whether the connection may go on.
sub answer {
    my ($self, $head, $body, $send) = @_;
    my $terms = Martlet::OpenRuntimes::terms($head);
    $send = stamped(Martlet::OpenRuntimes::stamp($terms), $send) if %$terms;
    my ($data, $goes_on);
    eval {
        Martlet::Failure::traced {
            my $response = Martlet::OpenRuntimes::own($head)
                // Martlet::OpenRuntimes::call($terms, $self->{function}, Martlet::Request->new($head, $body));
            if (my $next = $response->pieces) {
                $goes_on = stream($head, $response, $next, $send);
            } else {
                my ($bytes, $type) = $response->encode;
                $data = Martlet::Http1::whole($head, $response->{status}, $response->lines($type), $bytes);
            }
        };
        1;
    } or do {
        my $error = $@;
        die $error if ref $error eq 'Martlet::Disconnected';
        $data = Martlet::Failure::answer($error, $head);
    };
    return $goes_on unless defined $data;
    Martlet::Logs::flush();    # before its response ends: whoever has that may look for it
    $send->($data);
    return $head->{keep_alive};
}

# Sends with a further line in the head of the response.
sub stamped {
    my ($line, $send) = @_;
    return sub {
        my ($data) = @_;
        $data =~ s/\r\n/\r\n$line/ if length $line;
        $line = '';
        $send->($data);
    };
}

# Sends the pieces as they come. What dies before the first one still becomes a 500.
sub stream {
    my ($head, $response, $next, $send) = @_;
    my $keep_alive = $head->{chunks} && $head->{keep_alive};
    my $coding = $head->{chunks} ? "transfer-encoding: chunked\r\n" : '';
    my $started;
    my $begin = sub {
        $started = 1;
        $send->(Martlet::Http1::start($response->{status}, $response->lines($_[0]) . $coding, $keep_alive));
    };
    my $done = eval {
        while (defined(my $piece = $next->())) {
            $begin->(Martlet::Response::type_of($piece)) unless $started;
            last if $head->{method} eq 'HEAD';
            $piece = Martlet::Text::bytes($piece);
            $send->($head->{chunks} ? Martlet::Http1::chunk($piece) : $piece) if length $piece;
        }
        $begin->(undef) unless $started;
        Martlet::Logs::flush();
        $send->("0\r\n\r\n") if $head->{chunks} && $head->{method} ne 'HEAD';
        1;
    };
    return $keep_alive if $done;
    die $@ unless $started;
    Martlet::Logs::emit(2, 'error', (Martlet::Failure::describe($@))[2]) if ref $@ ne 'Martlet::Disconnected';
    return 0;
}

1;
