/** On a machine that is emulated everything takes longer: so many times as long as elsewhere is waited for a control. */
export const PATIENCE = Number(process.env.HAUKI_PATIENCE ?? 1);
