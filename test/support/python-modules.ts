/** What tests of modules in Python share: whether there can be any, two to post, and how one is refused. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { EvolveRejected, isError } from '@hauki/mesh';

/** Why tests of FastAPI cannot run here; false where they can. */
export const no_fastapi =
  process.env.CI !== 'true' &&
  !existsSync('/usr/lib/python3/dist-packages/fastapi') &&
  'FastAPI is not installed: apt-get install python3-fastapi';

/** Why tests of forms in FastAPI cannot run here; false where they can. */
export const no_multipart =
  process.env.CI !== 'true' &&
  !['multipart', 'python_multipart'].some((name) => existsSync(`/usr/lib/python3/dist-packages/${name}`)) &&
  'python-multipart is not installed: apt-get install python3-multipart';

/** As the design notes have it. */
export const NOTES = `
from fastapi import APIRouter
from pydantic import BaseModel

router = APIRouter()

class Item(BaseModel):
    pointer: str
    content: str

stored = {}

@router.get("/x")
def read(q: str = "nobody"):
    return {"hello": q}

@router.post("/api/v2/meshfs/write")
async def write(item: Item):
    stored[item.pointer] = item.content
    return {"status": "success", "pointer": item.pointer}

@router.get("/api/v2/meshfs/resolve")
async def resolve(pointer: str):
    return {"status": "success", "pointer": pointer, "content": stored[pointer]}
`;

/** An ASGI application without any framework. */
export const PLAIN = `
import json
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("only http")
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    shown = {name: scope[name] for name in ("method", "path", "root_path", "scheme")}
    shown["query"], shown["raw_path"], shown["bytes"] = scope["query_string"].decode(), scope["raw_path"].decode(), len(body)
    shown["mine"] = [value.decode() for name, value in scope["headers"] if name == b"x-mine"]
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-own", b"yes"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]})
    await send({"type": "http.response.body", "body": json.dumps(shown).encode()})
`;

/** Is refused at this stage, for this reason, at this line. */
export const rejected = (stage: string, why: RegExp, line?: number) => (error: unknown) => {
  assert.ok(isError(error, EvolveRejected), String(error));
  assert.equal(error.fields.stage, stage, error.message);
  assert.match(error.message, why);
  if (line !== undefined) assert.equal(error.fields.line, line);
  return true;
};
