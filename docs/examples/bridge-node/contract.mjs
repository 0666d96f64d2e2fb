// The contract's errors, and the checks of arguments that every adapter makes.

import { DateTime, Instance, Lease, Snapshot, Unsupported } from './terms.mjs';

export class JournalError extends Error {
  constructor(name, message, more = {}) {
    super(message);
    this.name = name; // the contract's name: LeaseMismatch, RunNotFound, ...
    Object.assign(this, more); // path of NotDurable, unknown of JournalUnavailable
  }
}

export const refuse = (name, message, more) => { throw new JournalError(name, message, more); };
const invalid = (message) => refuse('InvalidArgument', message);

export function checkName(value, what) {
  if (typeof value !== 'string') invalid(`${what} is no text`);
  if (value.length === 0 || value.length > 510 || [...value].length > 255) invalid(`${what} has no length from 1 to 255`);
  if (value.includes('\0')) invalid(`${what} contains U+0000`);
  return value;
}

export function checkKey(instance, runId) {
  if (!(instance instanceof Instance)) invalid('the instance is none');
  checkName(instance.name, 'the instance');
  checkName(runId, 'the run id');
}

export function checkToken(token) {
  if (token !== null && typeof token !== 'bigint') invalid('the token is no integer');
}

export function checkTtl(ttl) {
  // An int is a BigInt and a float a number. A bool is neither.
  const seconds = typeof ttl === 'bigint' || typeof ttl === 'number' ? Number(ttl) : NaN;
  if (!Number.isFinite(seconds) || seconds < 0) invalid('the ttl is no number of seconds');
  return seconds;
}

export function checkLease(lease) {
  if (!(lease instanceof Lease)) invalid('the lease is none');
  checkName(lease.run_id, 'the run id');
  checkName(lease.owner, 'the owner');
  if (typeof lease.token !== 'bigint') invalid('the token is no integer');
}

const DEEPEST = 500;

// Refuses what cannot be stored, with the path of the first offender (TRM-3).
export function checkDurable(term, path, depth = 0) {
  const no = (kind, where = path) => refuse('NotDurable', `${where} cannot be stored (${kind})`, { path: where });
  if (depth > DEEPEST) no('nested too deep');
  if (term instanceof Unsupported) no(term.kind);
  if (term instanceof DateTime) no('datetime');
  if (term === null || ['boolean', 'string', 'bigint', 'number'].includes(typeof term)) return;
  if (term instanceof Uint8Array) return;
  if (Array.isArray(term)) {
    term.forEach((item, index) => checkDurable(item, `${path}[${index}]`, depth + 1));
  } else if (term instanceof Map) {
    for (const [key, item] of term) {
      if (typeof key !== 'string') no('a key that is no text');
      checkDurable(item, `${path}.${key}`, depth + 1);
    }
  } else {
    no(term.constructor.name);
  }
}

// Gives the event's explicit seq, or null.
export function checkEvent(event) {
  if (!(event instanceof Map)) invalid('the event is no mapping');
  for (const key of event.keys()) if (typeof key !== 'string') invalid('a key of the event is no text');
  const type = event.get('type');
  if (typeof type !== 'string' || type === '') invalid('the event has no type');
  const seq = event.get('seq') ?? null;
  if (seq !== null && typeof seq !== 'bigint') invalid('the seq is no integer');
  for (const [key, value] of event) if (key !== 'type' && key !== 'seq') checkDurable(value, `event.${key}`, 1);
  return seq;
}

export function checkSnapshot(snapshot) {
  if (!(snapshot instanceof Snapshot)) invalid('the snapshot is none');
  checkName(snapshot.run_id, 'the run id');
  if (typeof snapshot.through_seq !== 'bigint') invalid('through_seq is no integer');
  if (!(snapshot.version_hash instanceof Uint8Array)) invalid('the version hash is no bytes');
  if (!(snapshot.taken_at instanceof DateTime) || snapshot.taken_at.offset === null) invalid('taken_at is no aware time');
  if (!(snapshot.steps_by_seq instanceof Map)) invalid('steps_by_seq is no mapping');
  for (const [seq, step] of snapshot.steps_by_seq) {
    if (typeof seq !== 'bigint') invalid('a step has a seq that is no integer');
    checkDurable(step, `snapshot.steps_by_seq[${seq}]`, 1);
  }
}
