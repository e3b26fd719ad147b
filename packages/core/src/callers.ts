/**
 * Who calls whom, as far as the core knows: whom it gave which ticket, and who calls through its HTTP door. A guest may
 * say what it likes of its sessions; which of them are whose is the core's own word.
 *
 * What always holds: nothing secret is kept (a ticket's id opens nothing); what is kept of a worker is bounded, in memory
 * alone, and goes with the worker.
 */
import { LIMITS, type SessionInfo, type TicketRole } from '@hauki/protocol';

/** A ticket that the core signed. `caller`: the owner's name of the token that asked for it. */
export interface Issued {
  worker: string;
  role: TicketRole;
  caller: string;
}

/** One token's calls of one worker over HTTP. */
interface AtTheDoor {
  since: number;
  calls: number;
  serving: number;
}

interface Known {
  tickets: Map<string, Issued>;
  /** By caller. */
  door: Map<string, AtTheDoor>;
}

export class Callers {
  readonly #workers = new Map<string, Known>();

  /** A ticket has been signed. */
  issued(jti: string, ticket: Issued): void {
    const { tickets } = this.#of(ticket.worker);
    tickets.set(jti, ticket);
    if (tickets.size > LIMITS.callers)
      for (const [oldest, { role }] of tickets) if (role !== 'owner') return void tickets.delete(oldest);
  }

  /** A call over HTTP begins; the result is to be called when it has ended. */
  begin(worker: string, caller: string): () => void {
    const { door } = this.#of(worker);
    const seen = door.get(caller) ?? { since: Date.now(), calls: 0, serving: 0 };
    door.delete(caller);
    door.set(caller, seen);
    const [oldest] = door.keys();
    if (door.size > LIMITS.callers) door.delete(oldest!);
    seen.calls++;
    seen.serving++;
    return () => {
      seen.serving--;
    };
  }

  /** What a node tells of a session, with what the core knows better: whose it is, and as what it came. */
  known<Told extends SessionInfo>(told: Told): Told {
    // Only its own tickets: a guest can name another worker's.
    const ticket = this.#workers.get(told.worker)?.tickets.get(told.session);
    return ticket ? { ...told, role: ticket.role, caller: ticket.caller } : told;
  }

  /** Who has called living workers through the HTTP door: no sessions, but one row each in their list. */
  atTheDoor(): SessionInfo[] {
    return [...this.#workers].flatMap(([worker, { door }]) =>
      [...door].map(
        ([caller, { since, calls, serving }]): SessionInfo => ({
          ...{ worker, session: 'http', role: 'visitor', caller, route: 'http', opened_at: since },
          ...{ connected: serving > 0, connections: 0, carried_bytes: 0, unconfirmed_bytes: 0 },
          stats: { calls_served: calls, serving },
        }),
      ),
    );
  }

  /** The worker has ended. */
  over(worker: string): void {
    this.#workers.delete(worker);
  }

  #of(worker: string): Known {
    const known = this.#workers.get(worker) ?? { tickets: new Map(), door: new Map() };
    this.#workers.set(worker, known);
    return known;
  }
}
