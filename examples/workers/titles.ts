/** Imported by the greeter, to show that a worker of several files is bundled into one module. */
export const titled = (name: string): string => name.charAt(0).toUpperCase() + name.slice(1);
