// What AWS's client for Node is asked to do: it knows nothing of Martlet.
exports.handler = async (event, context) => {
  if (event.rawPath === "/raise") {
    throw new Error("the reason ✗");
  }
  process.stdout.write(`serving ${context.awsRequestId}\n`); // what console.log writes, the client adds to
  return {
    statusCode: 201,
    headers: { "content-type": "text/plain; charset=utf-8", "x-id": context.awsRequestId },
    body: `${event.queryStringParameters?.name} ✓ ${event.body}`,
  };
};
