/** A plugin: its default export's fetch(request) answers. `hauki evolve examples/plugins/hello.ts` posts it to a kernel. */
export const state = { greeted: 0 };

export default {
  fetch(request: Request): Response {
    const name = new URL(request.url).searchParams.get('name') ?? 'you';
    state.greeted++;
    return Response.json({ hello: name, greeted: state.greeted });
  },
};
