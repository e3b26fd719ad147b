/** The words on the wire. */
export * from './access.ts';
export * from './called-errors.ts';
export * from './caller-errors.ts';
export * from './control.ts';
export * from './doors.ts';
export * from './errors.ts';
export * from './fate.ts';
export * from './grants.ts';
export * from './isolation.ts';
export * from './kernels.ts';
export * from './limits.ts';
export * from './pointer.ts';
export * from './prefix.ts';
export * from './revocation.ts';
export * from './targets.ts';
export * from './ticket.ts';
