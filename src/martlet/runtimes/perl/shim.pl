# The Perl shim: serves a function by the program protocol of docs/design.md, on descriptors 3 (a listening socket) and 4.
#
# It needs what comes with Perl only. All of it is loaded before there is code.

use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use JSON::PP ();
use Time::HiRes qw(time);

use Martlet::Failure;
use Martlet::Handler;
use Martlet::Http1;
use Martlet::Loader;
use Martlet::Logs;
use Martlet::Server;

# Runs once what every request will run, before there is code.
sub warm {
    my $handler = Martlet::Handler->new(sub { { query => $_[0]->query, json => $_[0]->json } });
    $handler->answer(Martlet::Http1::parse_head("POST /?a=b HTTP/1.1\r\nx-request-id: 0"), '{}', sub { });
}

# One life: wait for a specification, load the code, say how that went, serve.
sub run {
    defined(my $line = <STDIN>) or return;
    my $spec = JSON::PP->new->utf8->decode($line);
    open STDIN, '<', '/dev/null';
    open my $answers, '>&=', 4 or die "descriptor 4: $!";
    my $json = JSON::PP->new->utf8;
    Martlet::Logs::install();
    my $started = time;
    my $function = eval { Martlet::Failure::traced { Martlet::Loader::load($spec) } };
    if (!$function) {
        my ($type, $message, $traceback) = Martlet::Failure::describe($@);
        print {$answers} $json->encode({ error => { type => $type, message => $message, traceback => $traceback } }), "\n";
        close $answers;
        exit 1;
    }
    $Martlet::OpenRuntimes::startup = time - $started;
    print {$answers} $json->encode({ mode => 'handler', load_ms => 1000 * $Martlet::OpenRuntimes::startup }), "\n";
    close $answers;
    Martlet::Server->new(Martlet::Handler->new($function), $spec->{concurrency}, $spec->{max_body})->run;
}

warm();
run();
