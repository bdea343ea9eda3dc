use strict;
use warnings;
use utf8;

sub main {
    my ($context) = @_;
    my ($req, $res) = ($context->req, $context->res);
    my $path = $req->path;
    return $res->text('text ✓') if $path eq '/text';
    return $res->json({ hello => 'world', unicode => 'żółw 🐢' }) if $path eq '/json';
    return $res->binary(pack 'C*', 0 .. 255) if $path eq '/binary';
    return $res->empty if $path eq '/empty';
    return $res->redirect('/target') if $path eq '/redirect';
    return $res->json(described($req)) if $path eq '/request';
    return $res->json($req->body_json) if $path eq '/body';
    die 'the reason ✗' if $path eq '/raise';
    if ($path eq '/log') {
        $context->log('info line');
        $context->error('error line');
        return $res->text('logged');
    }
    return;
}

sub described {
    my ($req) = @_;
    return {
        method => $req->method, url => $req->url, scheme => $req->scheme, host => $req->host, port => $req->port,
        path => $req->path, query => $req->query, queryString => $req->query_string, headers => $req->headers,
        bodyText => $req->body_text,
    };
}

1;
