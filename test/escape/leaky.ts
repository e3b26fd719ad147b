/** An agent of its own that inherited a descriptor (see `calls.ts`). Arguments: driver, folder, `care` or nothing. */
import { closeInheritedDescriptors } from '@hauki/vault';
import { inVault, type Native, STEPS } from './calls.ts';

const [driver, folder, care] = process.argv.slice(2) as [Native, string, string];
if (care) closeInheritedDescriptors();
console.log(await inVault(driver, folder, STEPS, ['descriptors']));
