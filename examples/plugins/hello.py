"""A plugin: a FastAPI router. `hauki evolve examples/plugins/hello.py` posts it to a kernel."""
from fastapi import APIRouter

router = APIRouter()
state = {"greeted": 0}


@router.get("/")
def hello(name: str = "you"):
    state["greeted"] += 1
    return {"hello": name, "greeted": state["greeted"]}
