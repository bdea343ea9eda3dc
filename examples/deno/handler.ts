// Takes an address apart. Written for the web's own types, as `deno serve` has it.

export default {
  fetch(request: Request): Response {
    const asked = new URL(request.url).searchParams.get('address') ?? '';
    if (!URL.canParse(asked)) return new Response('ask for ?address=https://…', { status: 400 });
    const { protocol, hostname, port, pathname, searchParams } = new URL(asked);
    return Response.json({ protocol, hostname, port, pathname, query: Object.fromEntries(searchParams) });
  },
};
