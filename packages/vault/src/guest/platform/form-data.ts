/** FormData (XMLHttpRequest standard): names with texts and files, in their order. */
import { Blob, File, own } from './blob.ts';

export type FormValue = string | File;

const textOf = (given: unknown): string => (String(given) as string & { toWellFormed(): string }).toWellFormed();

function formValue(given: unknown, filename: unknown): FormValue {
  if (!(given instanceof Blob)) {
    if (filename !== undefined) throw new TypeError('FormData: only a Blob has a name of its own');
    return textOf(given);
  }
  if (given instanceof File && filename === undefined) return given;
  const name = filename === undefined ? 'blob' : textOf(filename);
  const { type, lastModified } = given as File;
  return new File(own(Blob.bytesOf(given)), name, { type, ...(given instanceof File ? { lastModified } : {}) });
}

export class FormData {
  #all: [string, FormValue][] = [];

  constructor(form?: unknown) {
    if (form !== undefined) throw new TypeError('FormData: there are no forms of pages here');
  }

  get [Symbol.toStringTag](): string {
    return 'FormData';
  }
  append(name: unknown, value: unknown, filename?: unknown): void {
    this.#all.push([textOf(name), formValue(value, filename)]);
  }
  delete(name: unknown): void {
    const key = textOf(name);
    this.#all = this.#all.filter(([other]) => other !== key);
  }
  get(name: unknown): FormValue | null {
    const key = textOf(name);
    return this.#all.find(([other]) => other === key)?.[1] ?? null;
  }
  getAll(name: unknown): FormValue[] {
    const key = textOf(name);
    return this.#all.filter(([other]) => other === key).map(([, value]) => value);
  }
  has(name: unknown): boolean {
    const key = textOf(name);
    return this.#all.some(([other]) => other === key);
  }
  set(name: unknown, value: unknown, filename?: unknown): void {
    const key = textOf(name);
    const entry: [string, FormValue] = [key, formValue(value, filename)];
    const at = this.#all.findIndex(([other]) => other === key);
    if (at < 0) this.#all.push(entry);
    else this.#all = this.#all.flatMap((one, i) => (i === at ? [entry] : one[0] === key ? [] : [one]));
  }
  forEach(run: (value: FormValue, name: string, form: FormData) => void, self?: unknown): void {
    for (const [name, value] of this) run.call(self, value, name, this);
  }
  *entries(): Generator<[string, FormValue], void> {
    for (let i = 0; i < this.#all.length; i++) yield [...this.#all[i]!];
  }
  *keys(): Generator<string, void> {
    for (const [name] of this.entries()) yield name;
  }
  *values(): Generator<FormValue, void> {
    for (const [, value] of this.entries()) yield value;
  }
  [Symbol.iterator](): Generator<[string, FormValue], void> {
    return this.entries();
  }
}
