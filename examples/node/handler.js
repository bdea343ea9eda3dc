// Makes the last part of an address from a title: "Żółw & Friends!" becomes "zolw-friends".

module.exports = async (req) => {
  const title = req.text();
  if (!title.trim()) return new Response('POST a title', { status: 400 });
  const slug = title
    .normalize('NFKD')
    .replace(/\p{Mark}/gu, '')
    .replace(/ł/g, 'l')
    .replace(/ß/g, 'ss')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
  console.info('%s becomes %s', title, slug);
  return { title, slug };
};
