/** Markdown for a terminal: headings, emphasis, code, lists, quotes, links, tables. In a pipe the text stays as written. */
import { stripVTControlCharacters, styleText } from 'node:util';
import { lexer, type Token, type Tokens } from 'marked';
import { printable } from './output.ts';

/** Wider lines are hard to read, however wide the terminal is. */
const MOST_COLUMNS = 100;
const LEAST_COLUMNS = 20;

type Style = Parameters<typeof styleText>[0];
// Whoever calls has a terminal before them; NO_COLOR is heeded all the same.
const style = (how: Style, text: string) =>
  process.env.NO_COLOR ? text : styleText(how, text, { validateStream: false });

/** Cells that a text takes on a terminal: wide letters take two, marks that combine none. */
export function width(text: string): number {
  let cells = 0;
  for (const { segment } of new Intl.Segmenter().segment(stripVTControlCharacters(text)))
    cells +=
      /\p{Extended_Pictographic}|[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]/u.test(
        segment,
      )
        ? 2
        : 1;
  return cells;
}

/** Breaks a styled text at spaces, so that lines fit. Words that are too long stay whole. */
function wrap(text: string, columns: number): string[] {
  return text.split('\n').flatMap((line) => {
    const lines: string[] = [];
    let now = '';
    for (const word of line.split(' ')) {
      if (now !== '' && width(now) + 1 + width(word) > columns) {
        lines.push(now);
        now = word;
      } else now = now === '' ? word : `${now} ${word}`;
    }
    return [...lines, now];
  });
}

/** Each word styled by itself, so that a line may end between them. */
const words = (how: Style, text: string) => text.replace(/[^ \n]+/g, (word) => style(how, word));

const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', '#39': "'", nbsp: ' ' };
const decoded = (text: string) => text.replace(/&(amp|lt|gt|quot|#39|nbsp);/g, (_, name) => ENTITIES[name]!);

function inline(tokens: Token[] | undefined, fallback = ''): string {
  if (!tokens) return fallback;
  return tokens
    .map((token) => {
      switch (token.type) {
        case 'strong':
          return words('bold', inline(token.tokens, token.text));
        case 'em':
          return words('italic', inline(token.tokens, token.text));
        case 'del':
          return words('strikethrough', inline(token.tokens, token.text));
        case 'codespan':
          return words('cyan', token.text);
        case 'link':
        case 'image': {
          const text = inline(token.tokens, token.text);
          const target = token.href === stripVTControlCharacters(text) ? '' : ` ${style('dim', `(${token.href})`)}`;
          return `${words('underline', text)}${target}`;
        }
        case 'br':
          return '\n';
        default:
          if ('tokens' in token && token.tokens) return inline(token.tokens);
          return 'text' in token ? decoded(String(token.text)) : '';
      }
    })
    .join('');
}

function list({ items, ordered, start }: Tokens.List, columns: number): string[] {
  return items.flatMap((item, at) => {
    const mark = ordered ? `${(Number(start) || 1) + at}.` : item.task ? (item.checked ? '☒' : '☐') : '•';
    const indent = ' '.repeat(mark.length + 1);
    const inner = item.tokens.filter((token) => token.type !== 'checkbox');
    const lines = blocks(inner, columns - indent.length, item.loose ? [''] : []);
    return lines.map((line, first) => (first === 0 ? `${mark} ${line}` : line && indent + line));
  });
}

function table({ header, rows, align }: Tokens.Table): string[] {
  const cells = [header, ...rows].map((row) => row.map((cell) => inline(cell.tokens)));
  const widths = header.map((_, at) => Math.max(...cells.map((row) => width(row[at] ?? ''))));
  const line = (row: string[]) =>
    widths
      .map((wide, at) => {
        const room = wide - width(row[at] ?? '');
        const left = align[at] === 'right' ? room : align[at] === 'center' ? Math.floor(room / 2) : 0;
        return ' '.repeat(left) + (row[at] ?? '') + ' '.repeat(room - left);
      })
      .join(style('dim', ' │ '))
      .trimEnd();
  const rule = style('dim', widths.map((wide) => '─'.repeat(wide)).join('─┼─'));
  const [head, ...body] = cells;
  return [line(head!.map((cell) => words('bold', cell))), rule, ...body.map(line)];
}

function block(token: Token, columns: number): string[] {
  switch (token.type) {
    case 'heading': {
      const how: Style = token.depth === 1 ? ['bold', 'underline'] : 'bold';
      return wrap(inline(token.tokens), columns).map((line) => style(how, line));
    }
    case 'code':
      return token.text.split('\n').map((line: string) => `    ${style('cyan', line)}`);
    case 'list':
      return list(token as Tokens.List, columns);
    case 'blockquote':
      return blocks(token.tokens ?? [], columns - 2, ['']).map((line) => `${style('dim', '│')} ${line}`.trimEnd());
    case 'hr':
      return [style('dim', '─'.repeat(Math.min(40, columns)))];
    case 'table':
      return table(token as Tokens.Table);
    case 'space':
    case 'def':
      return [];
    default:
      return wrap(
        inline('tokens' in token ? token.tokens : undefined, 'text' in token ? String(token.text).trimEnd() : ''),
        columns,
      );
  }
}

/** Blocks one after another, with `between` between them. */
function blocks(tokens: Token[], columns: number, between: string[]): string[] {
  const parts = tokens.map((token) => block(token, Math.max(LEAST_COLUMNS, columns))).filter((part) => part.length > 0);
  return parts.flatMap((part, at) => (at === 0 ? part : [...between, ...part]));
}

/** Renders a document; control characters in it are shown as nothing, so that a document cannot steer the terminal. */
export function renderMarkdown(text: string, columns = 80): string {
  return `${blocks(lexer(printable(text)), Math.min(columns, MOST_COLUMNS), ['']).join('\n')}\n`;
}
