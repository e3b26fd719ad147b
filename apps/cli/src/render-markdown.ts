/** Markdown for a terminal: headings, emphasis, code, lists, quotes, links, tables. In a pipe the text stays as written. */
import { styleText } from 'node:util';
import { lexer, type Token, type Tokens } from 'marked';
import { printable } from './output.ts';

function inline(tokens: Token[] | undefined, fallback = ''): string {
  if (!tokens) return fallback;
  return tokens
    .map((token) => {
      switch (token.type) {
        case 'strong':
          return styleText('bold', inline(token.tokens, token.text));
        case 'em':
          return styleText('italic', inline(token.tokens, token.text));
        case 'del':
          return styleText('strikethrough', inline(token.tokens, token.text));
        case 'codespan':
          return styleText('cyan', token.text);
        case 'link':
        case 'image':
          return `${styleText('underline', inline(token.tokens, token.text))} ${styleText('dim', `(${token.href})`)}`;
        case 'br':
          return '\n';
        default:
          return 'tokens' in token && token.tokens ? inline(token.tokens) : 'text' in token ? String(token.text) : '';
      }
    })
    .join('');
}

function block(token: Token, depth: number): string {
  const pad = '  '.repeat(depth);
  switch (token.type) {
    case 'heading':
      return `${styleText(token.depth === 1 ? ['bold', 'underline'] : 'bold', inline(token.tokens))}\n`;
    case 'code':
      return `${token.text
        .split('\n')
        .map((line: string) => `${pad}    ${styleText('cyan', line)}`)
        .join('\n')}\n`;
    case 'list':
      return (token as Tokens.List).items
        .map((item, i) => {
          const mark = token.ordered ? `${(Number(token.start) || 1) + i}.` : '•';
          const body = item.tokens.map((t) => (t.type === 'list' ? `\n${block(t, depth + 1)}` : inline([t]))).join('');
          return `${pad}${mark} ${body.trimEnd()}`;
        })
        .join('\n')
        .concat('\n');
    case 'blockquote':
      return `${(token.tokens ?? [])
        .map((t) => block(t, depth))
        .join('')
        .trimEnd()
        .split('\n')
        .map((l: string) => `${pad}${styleText('dim', '│')} ${l}`)
        .join('\n')}\n`;
    case 'hr':
      return `${styleText('dim', '─'.repeat(40))}\n`;
    case 'table': {
      const { header, rows } = token as Tokens.Table;
      return `${[header, ...rows].map((row) => pad + row.map((cell) => inline(cell.tokens)).join('  │  ')).join('\n')}\n`;
    }
    case 'space':
      return '';
    default:
      return `${pad}${inline('tokens' in token ? token.tokens : undefined, 'text' in token ? String(token.text) : '')}\n`;
  }
}

/** Renders a document; control characters in it are shown as nothing, so that a document cannot steer the terminal. */
export function renderMarkdown(text: string): string {
  return lexer(printable(text))
    .map((token) => block(token, 0))
    .filter((part) => part !== '')
    .join('\n');
}
