# The contract of Open Runtimes: `sub main { my ($context) = @_; … }` with $context->req, ->res, ->log and ->error.
package Martlet::OpenRuntimes;

use strict;
use warnings;
use Martlet::Logs;
use Martlet::Response;

our $startup = 0;    # seconds that loading the code took

my $NO_RETURN = 'Return statement missing. return context.res.empty() if no response is expected.';
my $TIMED_OUT = 'Execution timed out.';

# The answer to a request for the runtime itself; undef for those for the function.
sub own {
    my ($head) = @_;
    return undef if $head->{method} ne 'GET';
    return Martlet::Response->new('OK', 200, {}) if $head->{target} eq '/__opr/health';
    return Martlet::Response->new(sprintf("startup=%.3f\n", $startup), 200, {}) if $head->{target} eq '/__opr/timings';
    return undef;
}

# Takes the headers of the contract out of a head; returns what they ask for.
sub terms {
    my ($fields) = $_[0]{fields};
    return { map { substr($_, 16) => delete $fields->{$_} } grep { /\Ax-open-runtimes-/ } keys %$fields };
}

# The id of the log, as a line of every response to a request that has such headers.
sub stamp {
    my ($terms) = @_;
    return '' unless %$terms;
    my $id = $terms->{'log-id'} // join '', map { sprintf '%02x', rand 256 } 1 .. 10;
    return Martlet::Http1::header_lines({ 'x-open-runtimes-log-id' => $id });
}

# Runs a function as such terms allow it.
sub call {
    my ($terms, $function, $request) = @_;
    my $secret = $ENV{OPEN_RUNTIMES_SECRET} // '';
    return refused('Unauthorized. Provide correct "x-open-runtimes-secret" header.')
        if length $secret && ($terms->{secret} // '') ne $secret;
    my $timeout = $terms->{timeout};
    return refused('Header "x-open-runtimes-timeout" must be an integer greater than 0.')
        if defined $timeout && $timeout !~ /\A0*[1-9][0-9]*\z/;
    $request->{muted} = 1 if ($terms->{logging} // '') =~ /\Adisabled?\z/;

    my $timed_out;
    my $result = eval {
        local $SIG{ALRM} = sub { $timed_out = 1; die "$TIMED_OUT\n" };
        alarm($timeout // 0);
        my $result = $function->($request);
        alarm 0;
        [$result];
    };
    if (!$result) {
        my $error = $@;
        alarm 0;
        die $error unless $timed_out;
        Martlet::Logs::emit(2, 'error', $TIMED_OUT);
        return refused($TIMED_OUT);
    }
    die bless { message => $NO_RETURN }, 'Martlet::NothingReturned'
        if !defined $result->[0] && $request->{context_used};
    return Martlet::Response->from($result->[0]);
}

sub refused {
    return Martlet::Response->new($_[0], 500, {});
}

sub write_log {
    my ($level, @values) = @_;
    Martlet::Logs::emit(2, $level, join ' ', map { ref ? Martlet::Text::characters(Martlet::Response::json($_)) : $_ } @values);
}

# The request, by the names of Open Runtimes.
package Martlet::OpenRuntimes::Req;

sub new {
    my ($class, $request) = @_;
    return bless { request => $request }, $class;
}

sub method { return $_[0]{request}->method }
sub path { return $_[0]{request}->path }
sub headers { return $_[0]{request}->headers }
sub query_string { return $_[0]{request}->query_string }
sub body_text { return $_[0]{request}->text }
sub body_json { return $_[0]{request}->json }
sub body_binary { return $_[0]{request}->body }
sub scheme { return $_[0]->headers->{'x-forwarded-proto'} // 'http' }
sub host { return ($_[0]->authority)[0] }
sub port { return ($_[0]->authority)[1] // ($_[0]->scheme eq 'https' ? 443 : 80) }

# The last value of each name, as it was sent: not decoded.
sub query {
    return { map { my ($name, $value) = split /=/, $_, 2; $name => $value // '' }
            grep { /\A[^=]/ } split /&/, $_[0]->query_string };
}

sub url {
    my ($self) = @_;
    my $query = length $self->query_string ? '?' . $self->query_string : '';
    return $self->scheme . '://' . join(':', $self->authority) . $self->path . $query;
}

# The body as its content type says: JSON read, text, or bytes.
sub body {
    my ($self) = @_;
    my $type = $self->headers->{'content-type'} // '';
    return $self->body_json if $type =~ m{\Aapplication/json};
    return $type =~ m{\Atext/} ? $self->body_text : $self->body_binary;
}

sub authority {
    my $headers = $_[0]->headers;
    my ($host, $port) = ($headers->{'x-forwarded-host'} // $headers->{host} // 'localhost') =~ /\A(.*?)(?::(\d+))?\z/;
    return defined $port ? ($host, $port + 0) : ($host);
}

# Makes responses.
package Martlet::OpenRuntimes::Res;

sub text {
    my ($class, $body, $status, $headers) = @_;
    return respond(Martlet::Text::bytes($body), $status, $headers, 'text/plain');
}

sub json {
    my ($class, $value, $status, $headers) = @_;
    return respond(Martlet::Response::json($value), $status, $headers, 'application/json');
}

sub binary {
    my ($class, $bytes, $status, $headers) = @_;
    return respond($bytes, $status, $headers, 'application/octet-stream');
}

sub empty {
    return Martlet::Response->new(undef, 204, {});
}

sub redirect {
    my ($class, $url, $status, $headers) = @_;
    return Martlet::Response->new('', $status // 301, { %{ $headers // {} }, location => $url });
}

sub respond {
    my ($body, $status, $headers, $type) = @_;
    my %headers = map { lc($_) => $headers->{$_} } keys %{ $headers // {} };
    $type = $headers{'content-type'} // $type;
    $type .= '; charset=utf-8' if $type =~ m{\A(?:text/|application/json)} && $type !~ /charset=/;
    return Martlet::Response->new($body, $status // 200, { %headers, 'content-type' => $type });
}

1;
