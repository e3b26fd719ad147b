/** Event, CustomEvent and EventTarget (DOM standard, section 2), of targets that stand in no tree. */

interface EventInit {
  bubbles?: unknown;
  cancelable?: unknown;
  composed?: unknown;
}

/** What only a target does with an event. */
interface Course {
  target: EventTarget | null;
  under_way: boolean;
  stopped: boolean;
  prevented: boolean;
  passive: boolean;
}
const courses = new WeakMap<Event, Course>();
const courseOf = (event: Event): Course => {
  const course = courses.get(event);
  if (!course) throw new TypeError('this is no event');
  return course;
};

export class Event {
  static readonly NONE = 0;
  static readonly CAPTURING_PHASE = 1;
  static readonly AT_TARGET = 2;
  static readonly BUBBLING_PHASE = 3;
  readonly type: string;
  readonly bubbles: boolean;
  readonly cancelable: boolean;
  readonly composed: boolean;
  readonly isTrusted: boolean = false;
  /** A worker without the grant `time` has events too. */
  readonly timeStamp: number = 0;

  constructor(type: unknown, init?: EventInit) {
    this.type = String(type);
    this.bubbles = Boolean(init?.bubbles);
    this.cancelable = Boolean(init?.cancelable);
    this.composed = Boolean(init?.composed);
    courses.set(this, { target: null, under_way: false, stopped: false, prevented: false, passive: false });
  }

  get target(): EventTarget | null {
    return courseOf(this).target;
  }
  get srcElement(): EventTarget | null {
    return this.target;
  }
  get currentTarget(): EventTarget | null {
    return courseOf(this).under_way ? this.target : null;
  }
  get eventPhase(): number {
    return courseOf(this).under_way ? Event.AT_TARGET : Event.NONE;
  }
  get defaultPrevented(): boolean {
    return courseOf(this).prevented;
  }
  get returnValue(): boolean {
    return !this.defaultPrevented;
  }
  composedPath(): EventTarget[] {
    return this.currentTarget ? [this.currentTarget] : [];
  }
  preventDefault(): void {
    const course = courseOf(this);
    if (this.cancelable && !course.passive) course.prevented = true;
  }
  stopImmediatePropagation(): void {
    courseOf(this).stopped = true;
  }
  /** Behind its target nobody hears of it. */
  stopPropagation(): void {}
  get [Symbol.toStringTag](): string {
    return 'Event';
  }
}

export class CustomEvent extends Event {
  readonly detail: unknown;
  constructor(type: unknown, init?: EventInit & { detail?: unknown }) {
    super(type, init);
    this.detail = init?.detail ?? null;
  }
  override get [Symbol.toStringTag](): string {
    return 'CustomEvent';
  }
}

type Listener = ((event: Event) => unknown) | { handleEvent(event: Event): unknown };

interface Listening {
  listener: Listener;
  capture: boolean;
  once: boolean;
  passive: boolean;
  /** It is not called any more, also by the event under way. */
  gone: boolean;
}

interface ListenerOptions {
  capture?: unknown;
  once?: unknown;
  passive?: unknown;
  signal?: AbortSignal;
}

const captures = (options: unknown): boolean =>
  Boolean(typeof options === 'object' && options !== null ? (options as ListenerOptions).capture : options);

export class EventTarget {
  readonly #all = new Map<string, Listening[]>();

  addEventListener(type: unknown, listener: Listener | null | undefined, options?: ListenerOptions | boolean): void {
    if (listener === null || listener === undefined) return;
    if (typeof listener !== 'function' && typeof listener !== 'object')
      throw new TypeError('a listener is a function, or an object that has handleEvent');
    const { once, passive, signal } = typeof options === 'object' && options !== null ? options : {};
    if (signal?.aborted) return;
    const capture = captures(options);
    const name = String(type);
    const there = this.#all.get(name) ?? [];
    if (there.some((one) => one.listener === listener && one.capture === capture)) return;
    const all = [...there, { listener, capture, once: Boolean(once), passive: Boolean(passive), gone: false }];
    this.#all.set(name, all);
    signal?.addEventListener('abort', () => this.removeEventListener(name, listener, capture), { once: true });
  }

  removeEventListener(type: unknown, listener: unknown, options?: ListenerOptions | boolean): void {
    const name = String(type);
    const capture = captures(options);
    const there = this.#all.get(name) ?? [];
    const found = there.find((one) => one.listener === listener && one.capture === capture);
    if (!found) return;
    found.gone = true;
    if (there.length === 1) this.#all.delete(name);
    else
      this.#all.set(
        name,
        there.filter((one) => one !== found),
      );
  }

  /** All listeners hear of it, also behind one that throws: that is logged. False where one has prevented what would follow. */
  dispatchEvent(event: Event): boolean {
    const course = courseOf(event);
    if (course.under_way) throw new DOMException('the event is under way already', 'InvalidStateError');
    Object.assign(course, { target: this, under_way: true, stopped: false });
    for (const one of this.#all.get(event.type) ?? []) {
      if (course.stopped) break;
      if (one.gone) continue;
      if (one.once) this.removeEventListener(event.type, one.listener, one.capture);
      course.passive = one.passive;
      try {
        if (typeof one.listener === 'function') one.listener.call(this, event);
        else one.listener.handleEvent(event);
      } catch (error) {
        console.error(`a listener of ${JSON.stringify(event.type)} threw:`, error);
      }
    }
    Object.assign(course, { under_way: false, passive: false });
    return !course.prevented;
  }

  get [Symbol.toStringTag](): string {
    return 'EventTarget';
  }
}
