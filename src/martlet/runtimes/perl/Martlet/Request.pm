# The request as a handler sees it; it is the context of a function of Open Runtimes, too.
package Martlet::Request;

use strict;
use warnings;
use JSON::PP ();
use Martlet::OpenRuntimes;
use Martlet::Response;
use Martlet::Text;
use Time::HiRes qw(time);

sub new {
    my ($class, $head, $body) = @_;
    my ($path, $query_string) = split /\?/, $head->{target}, 2;
    return bless {
        arrived => time, method => $head->{method}, path => Martlet::Text::decoded($path),
        query_string => $query_string // '', headers => $head->{fields}, body => $body,
    }, $class;
}

sub method { return $_[0]{method} }
sub path { return $_[0]{path} }
sub query_string { return $_[0]{query_string} }
sub headers { return $_[0]{headers} }    # by name, in lower case
sub body { return $_[0]{body} }
sub id { return $_[0]{headers}{'x-request-id'} }
sub function { return $_[0]{headers}{'x-faas-function'} }
sub revision { return $_[0]{headers}{'x-faas-revision'} }
sub deadline_ms { return $_[0]{headers}{'x-faas-deadline'} }

# A header, by its name in any case.
sub header {
    my ($self, $name) = @_;
    return $self->{headers}{ lc $name };
}

# Every value of each name of the query.
sub query_params {
    my ($self) = @_;
    return $self->{query_params} //= do {
        my %params;
        for (grep { length } split /&/, $self->{query_string} =~ tr/+/ /r) {
            my ($name, $value) = map { Martlet::Text::decoded($_) } split(/=/, $_, 2), '';
            push @{ $params{$name} }, $value;
        }
        \%params;
    };
}

# The first value of each name of the query.
sub query {
    my $params = $_[0]->query_params;
    return { map { $_ => $params->{$_}[0] } keys %$params };
}

# The body as characters.
sub text {
    return Martlet::Text::characters($_[0]{body});
}

# The body read as JSON; {} where it is empty. A handler that lets the error pass answers 400.
sub json {
    my ($self) = @_;
    return {} unless length $self->{body};
    my $value = eval { local $SIG{__DIE__}; [JSON::PP->new->utf8->allow_nonref->decode($self->{body})] };
    die bless { message => 'the request body is not JSON: ' . ($@ =~ s/ at \S+ line \d+(?:, <\S+> (?:line|chunk) \d+)?\.?\s*\z//r) }, 'Martlet::BadJson'
        unless $value;
    return $value->[0];
}

# Milliseconds that are left of deadline_ms.
sub remaining_ms {
    my ($self) = @_;
    return defined $self->deadline_ms ? $self->deadline_ms - 1000 * (time - $self->{arrived}) : undef;
}

# A response with a status and headers; a header whose value is a list is sent several times.
sub respond {
    my ($self, $body, $status, $headers) = @_;
    return Martlet::Response->new($body, $status // 200, $headers // {});
}

sub req {
    my ($self) = @_;
    $self->{context_used} = 1;
    return $self->{req} //= Martlet::OpenRuntimes::Req->new($self);
}

sub res {
    $_[0]{context_used} = 1;
    return 'Martlet::OpenRuntimes::Res';
}

sub log {
    my ($self, @values) = @_;
    Martlet::OpenRuntimes::write_log('info', @values) unless $self->{muted};
}

sub error {
    my ($self, @values) = @_;
    Martlet::OpenRuntimes::write_log('error', @values) unless $self->{muted};
}

1;
