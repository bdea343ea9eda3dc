use strict;
use warnings;
use utf8;
use Encode qw(decode_utf8);
use JSON::PP;
use POSIX ();
use Time::HiRes qw(sleep);

my $count = 0;

my %routes = (
    '/json' => sub { { hello => 'world', unicode => 'żółw 🐢', list => [1, 2.5, undef, JSON::PP::true] } },
    '/echo' => sub { $_[0]->respond($_[0]->body, 200, { 'content-type' => $_[0]->header('Content-Type') }) },
    '/inspect' => sub {
        my ($request) = @_;
        return {
            method => $request->method, path => $request->path, query => $request->query,
            headers => $request->headers, length => length $request->body,
        };
    },
    '/text' => sub { 'text ✓' },
    '/binary' => sub { pack 'C*', 0 .. 255 },
    '/empty' => sub { undef },
    '/status' => sub { $_[0]->respond('teapot', 418, { 'x-colour' => 'blue' }) },
    '/raise' => sub { die 'the reason ✗' },
    '/crash' => sub { exit 3 },
    '/sleep' => sub {
        my $ms = $_[0]->query->{ms};
        sleep $ms / 1000;
        return { slept => $ms + 0 };
    },
    '/environment' => sub { { GREETING => decode_utf8($ENV{GREETING}) } },
    '/log' => sub {
        print "to stdout ✓\n";
        print STDERR "to stderr\n";
        warn "a warning\n";
        return 'logged';
    },
    '/say' => sub {
        warn $_[0]->query->{word}, " before\n";
        sleep 0.1;
        warn $_[0]->query->{word}, " after\n";
        return 'said';
    },
    '/count' => sub { { count => ++$count } },
    '/stream' => sub {
        my @pieces = ("one\n", "two\n");
        return sub {
            sleep 0.3 if @pieces == 1;
            return shift @pieces;
        };
    },
    '/length' => sub { { length => length $_[0]->body } },
    '/large' => sub { 'x' x 5_000_000 },
    '/unmodified' => sub { $_[0]->respond('unseen', 304) },
    '/break' => sub {
        my @pieces = ("one\n");
        return sub { shift @pieces // die 'the reason' };
    },
    '/split' => sub { $_[0]->respond('', 200, { 'x-colour' => "blue\r\nx-other: 1" }) },
);

sub handle {
    my ($request) = @_;
    my $route = $routes{ $request->path }
        or return $request->respond({ error => 'there is no ' . $request->path }, 404);
    return $route->($request);
}

1;
