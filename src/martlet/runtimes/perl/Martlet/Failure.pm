# What people are told when their code dies: type, message and traceback, and an answer.
package Martlet::Failure;

use strict;
use warnings;
use Carp ();
use Martlet::Http1;
use Martlet::Logs;
use Martlet::Response;
use Martlet::Text;
use Scalar::Util qw(blessed);

my $MESSAGE_CHARACTERS = 4096;
my $trace = '';

# Runs a block; where it dies, `describe` knows from where.
sub traced (&) {
    my ($block) = @_;
    $trace = '';
    local $Carp::CarpInternal{'Martlet::Failure'} = 1;
    local $SIG{__DIE__} = sub { $trace = join "\n", grep { !m{/Martlet/|eval \{|shim\.pl} } split /\n/, Carp::longmess('') };
    return $block->();
}

# Returns type, message and traceback of what code died with, as characters.
sub describe {
    my ($error) = @_;
    my $type = blessed $error ? blessed($error) =~ s/\AMartlet:://r : 'Error';
    my $text = blessed $error && $error->can('message') ? $error->message
        : ref $error eq 'HASH' || blessed $error && !overload::Method($error, '""') ? ($error->{message} // "$type")
        : "$error";
    $text = Martlet::Text::characters(Martlet::Text::bytes($text));
    my $message = substr $text =~ s/ at \S+ line \d+(?:, <\S+> (?:line|chunk) \d+)?\.?\s*\z//r, 0, $MESSAGE_CHARACTERS;
    chomp $message;
    chomp $text;
    return ($type, $message, Martlet::Text::characters(Martlet::Text::bytes("$type: $text$trace")));
}

# All of the response to a request whose handler died. The traceback goes to the log.
sub answer {
    my ($error, $head) = @_;
    my ($type, $message, $traceback) = describe($error);
    if ($type eq 'BadJson') {
        my $lines = Martlet::Http1::header_lines({ 'content-type' => 'application/problem+json' });
        return Martlet::Http1::whole($head, 400, $lines, Martlet::Response::json({
            type => 'about:blank', status => 400, code => 'bad_json',
            title => 'The request body is not JSON', detail => $message,
            request_id => $head->{fields}{'x-request-id'},
        }));
    }
    Martlet::Logs::emit(2, 'error', $traceback);
    my $lines = Martlet::Http1::header_lines({ 'content-type' => 'application/json', 'x-martlet-error' => $type });
    return Martlet::Http1::whole($head, 500, $lines, Martlet::Response::json({ type => $type, message => $message }));
}

1;
