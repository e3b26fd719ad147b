/** Parts of the client that a page fetches when they are used first. */

/**
 * Loads a part once. Where that failed it is asked for under another URL the next time: a browser may keep the failure of a
 * module as long as the page lives (HTML, the module map). Which URL it had the error tells, in most browsers.
 */
export function late<T>(load: () => Promise<T>): () => Promise<T> {
  let part: Promise<T> | undefined;
  let url: string | undefined;
  return () => {
    part ??= (url ? (import(/* @vite-ignore */ /* webpackIgnore: true */ url) as Promise<T>) : load()).catch(
      (error) => {
        part = undefined;
        url = /http\S+/.exec(error)?.[0].concat('?');
        throw error;
      },
    );
    return part;
  };
}
