// Fingerprints of what is sent, by the hash functions that come with Bun.

const ALGORITHMS = ['md5', 'sha1', 'sha256', 'blake2b256'] as const;

export default (req: { body: Uint8Array }) => {
  const fingerprint = (algorithm: (typeof ALGORITHMS)[number]) =>
    new Bun.CryptoHasher(algorithm).update(req.body).digest('hex');
  return Object.fromEntries(ALGORITHMS.map((algorithm) => [algorithm, fingerprint(algorithm)]));
};
