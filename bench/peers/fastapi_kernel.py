"""The notes' own design, written small: a FastAPI microkernel that tries a posted file in a child process and then
imports it into its own. Run: python3 fastapi_kernel.py FOLDER PORT"""
import importlib.util
import pathlib
import subprocess
import sys

import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel

folder, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
app = FastAPI()


class Plugin(BaseModel):
    target_module: str
    content: str


@app.get("/api/status")
def status():
    return {"status": "ok"}


@app.post("/api/evolve_plugin")
def evolve(plugin: Plugin, response: Response):
    name = pathlib.Path(plugin.target_module).stem
    staged = folder / f"{name}_staged.py"
    staged.write_text(plugin.content)
    tried = subprocess.run([sys.executable, "-c", f"import runpy; assert 'router' in runpy.run_path({str(staged)!r})"],
                           capture_output=True)
    if tried.returncode != 0:
        response.status_code = 422
        return {"status": "rejected", "why": tried.stderr.decode()[-500:]}
    file = folder / f"{name}.py"
    staged.replace(file)
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    prefix = f"/api/plugins/{name}"
    app.router.routes = [route for route in app.router.routes if not getattr(route, "path", "").startswith(prefix + "/")]
    app.include_router(module.router, prefix=prefix, tags=[name])
    return {"status": "success"}


uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)
