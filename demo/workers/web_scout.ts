/** The web scout: fetches Markdown documents and says what is in them. It may reach only what it was granted. */
import { lexer, type Token, type Tokens } from 'marked';

export interface Finding {
  path: string;
  title: string;
  headings: number;
  words: number;
  /** Relative links that lead nowhere. */
  dead_links: string[];
  languages: string[];
  keywords: string[];
}

const COMMON = new Set(
  'about after also and any are array async been before between both but call can code could default does each else example false file first following for from function given has have here how however import into its just like list made make may more most must name need new not null number object one only option options other our out over package return same see set should some string such than that the their them then there these they this those true type under use used using value values want was way well were what when where which while will with would you your npm https http com github const require node true'.split(
    ' ',
  ),
);

function walk(tokens: Token[], visit: (token: Token) => void): void {
  for (const token of tokens) {
    visit(token);
    if ('tokens' in token && token.tokens) walk(token.tokens, visit);
    if (token.type === 'list') for (const item of (token as Tokens.List).items) walk(item.tokens, visit);
  }
}

function keywords(text: string): string[] {
  const count = new Map<string, number>();
  for (const word of text.toLowerCase().match(/[a-z][a-z-]{3,}/g) ?? [])
    if (!COMMON.has(word)) count.set(word, (count.get(word) ?? 0) + 1);
  return [...count]
    .sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
    .slice(0, 5)
    .map(([word]) => word);
}

/** The path that a relative link means, or undefined for links that lead elsewhere. */
function relative(from: string, href: string): string | undefined {
  if (/^(?:[a-z][a-z0-9+.-]*:|\/\/|#|\/)/i.test(href)) return undefined;
  const parts = from.split('/').slice(0, -1);
  for (const part of href.replace(/[#?].*$/, '').split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '.' && part !== '') parts.push(part);
  }
  return parts.join('/');
}

export default class WebScout {
  /** Reads the documents at `base` one after the other. */
  async analyze(base: string, paths: string[]): Promise<Finding[]> {
    const findings: Finding[] = [];
    for (const path of paths) findings.push(await this._read(base, path));
    return findings;
  }

  async _read(base: string, path: string): Promise<Finding> {
    const answer = await fetch(`${base}/${path}`);
    if (answer.status !== 200) throw new Error(`${path}: HTTP ${answer.status}`);
    const text = await answer.text();
    const finding: Finding = {
      path,
      title: '',
      headings: 0,
      words: 0,
      dead_links: [],
      languages: [],
      keywords: keywords(text),
    };
    finding.words = text.split(/\s+/).length;
    const languages = new Set<string>();
    const links = new Map<string, string>();
    walk(lexer(text), (token) => {
      if (token.type === 'heading') {
        finding.headings++;
        if (finding.title === '') finding.title = (token as Tokens.Heading).text;
      } else if (token.type === 'code') {
        const language = /^[\w+#-]+/.exec((token as Tokens.Code).lang ?? '')?.[0];
        if (language) languages.add(language.toLowerCase());
      } else if (token.type === 'link') {
        const { href } = token as Tokens.Link;
        const target = relative(path, href);
        if (target) links.set(target, href);
      }
    });
    for (const [target, href] of links)
      if ((await fetch(`${base}/${target}`, { method: 'HEAD' })).status === 404) finding.dead_links.push(href);
    finding.languages = [...languages];
    return finding;
  }
}
