import { convert, isScale } from './temperature';

interface Incoming {
  query: Record<string, string>;
}

export default (req: Incoming) => {
  const [scale, degrees] = Object.entries(req.query)[0] ?? [];
  if (scale === undefined || !isScale(scale) || !Number.isFinite(Number(degrees))) {
    return new Response('ask for ?celsius=20, ?fahrenheit=68 or ?kelvin=293', { status: 400 });
  }
  return convert(Number(degrees), scale);
};
