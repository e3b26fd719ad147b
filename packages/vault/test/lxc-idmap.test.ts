/** Id ranges: never two owners, free again when the owner is dead. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { claimIds, dropClaim, listClaims } from '../src/drivers/lxc/idmap.ts';
import { IDMAP_SLOTS } from '../src/drivers/lxc/limits.ts';

suite('id ranges', { skip: process.platform !== 'linux' && 'needs /proc' }, () => {
  const dir = mkdtempSync(join(tmpdir(), 'hauki-ids-'));
  after(() => rmSync(dir, { recursive: true }));

  test('are disjoint, and free again when released', () => {
    const claims = Array.from({ length: 200 }, (_, i) => claimIds(`hauki.a.${i}`, dir));
    const bases = claims.map((claim) => claim.base).sort((a, b) => a - b);
    bases.forEach((base, i) => {
      assert.ok(i === 0 || base - bases[i - 1]! >= 65_536);
    });
    assert.ok(bases.at(-1)! + 65_536 < 2 ** 31);
    for (const claim of claims) claim.release();
    assert.deepEqual(readdirSync(dir), []);
  });

  test('of a dead owner are taken over, of a living one never', () => {
    const mine = claimIds('hauki.a.x', dir);
    // A start time that no process has: the pid was given again to another.
    for (let slot = 0; slot < IDMAP_SLOTS; slot++) writeFileSync(join(dir, `${slot}.1.1.ab`), 'hauki.b.y');
    const next = claimIds('hauki.a.z', dir);
    assert.notEqual(next.base, mine.base);
    assert.equal(listClaims('hauki.a.', dir).length, 2);
    mine.release();
    next.release();
    for (const held of listClaims('hauki.', dir)) dropClaim(held);
    assert.deepEqual(readdirSync(dir), []);
  });
});
