<?php

return function ($context) {
    $req = $context->req;
    $res = $context->res;
    switch ($req->path) {
        case '/text':
            return $res->text('text ✓');
        case '/json':
            return $res->json(['hello' => 'world', 'unicode' => 'żółw 🐢']);
        case '/binary':
            return $res->binary(implode('', array_map(chr(...), range(0, 255))));
        case '/empty':
            return $res->empty();
        case '/redirect':
            return $res->redirect('/target');
        case '/request':
            return $res->json([
                'method' => $req->method, 'url' => $req->url, 'scheme' => $req->scheme, 'host' => $req->host,
                'port' => $req->port, 'path' => $req->path, 'query' => (object) $req->query,
                'queryString' => $req->queryString, 'headers' => $req->headers, 'bodyText' => $req->bodyText,
            ]);
        case '/body':
            return $res->json($req->bodyJson);
        case '/log':
            $context->log('info line');
            $context->error('error line');
            return $res->text('logged');
        case '/nothing':
            return null;
        case '/raise':
            throw new RuntimeException('the reason ✗');
    }
};
