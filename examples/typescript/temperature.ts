export type Scale = 'celsius' | 'fahrenheit' | 'kelvin';

const toKelvin: Record<Scale, (degrees: number) => number> = {
  celsius: (degrees) => degrees + 273.15,
  fahrenheit: (degrees) => ((degrees - 32) * 5) / 9 + 273.15,
  kelvin: (degrees) => degrees,
};

export function isScale(name: string): name is Scale {
  return name in toKelvin;
}

export function convert(degrees: number, from: Scale): Record<Scale, number> {
  const kelvin = toKelvin[from](degrees);
  const round = (value: number) => Math.round(value * 100) / 100;
  return { celsius: round(kelvin - 273.15), fahrenheit: round(((kelvin - 273.15) * 9) / 5 + 32), kelvin: round(kelvin) };
}
