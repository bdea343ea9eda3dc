<?php

/** Greets whoever has filled in the form. */
function handle($request)
{
    $page = render('page.phtml', ['name' => trim($request->query['name'] ?? '')]);
    return $request->respond($page, headers: ['content-type' => 'text/html; charset=utf-8']);
}

function render(string $template, array $variables): string
{
    extract($variables);
    ob_start();
    require $template;
    return ob_get_clean();
}
