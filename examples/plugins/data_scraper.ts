/** A plugin that finds the data in a page: `POST` HTML, get its title, headings and links as JSON. Needs no grants. */
export const routes = ['POST /'];

const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', '#39': "'", nbsp: ' ' };
const text = (html: string): string =>
  html
    .replace(/<[^<>]*>/g, ' ')
    .replace(/&(#39|[a-z]+);/g, (whole, name) => ENTITIES[name] ?? whole)
    .replace(/\s+/g, ' ')
    .trim();

export default {
  async fetch(request: Request): Promise<Response> {
    if (request.method !== 'POST') return new Response('POST a page to it\n', { status: 405 });
    const html = await request.text();
    const all = (pattern: RegExp) => [...html.matchAll(pattern)].slice(0, 1_000);
    const [title] = all(/<title\b[^<>]*>([^<]*)/gi);
    return Response.json({
      title: title ? text(title[1]!) : null,
      headings: all(/<h[1-6]\b[^<>]*>([^<]*)/gi).map((found) => text(found[1]!)),
      links: all(/<a\b[^<>]*?\bhref="([^"<>]*)"[^<>]*>([^<]*)/gi).map(([, href, label]) => ({
        href: text(href!),
        text: text(label!),
      })),
    });
  },
};
