"""Loading, reloading and unloading models over HTTP. Only there where admin keys are configured."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from beexformer.app.deployment import Change, below_roots
from beexformer.app.errors import ChangeRefused, responses
from beexformer.app.service import Service, Serving

ModelName = Annotated[str, Path(description="name of the model, as its checkpoint has it")]
ANSWERS = responses(401, 404, 409, 422)
router = APIRouter(prefix="/admin/models", tags=["admin"])


class LoadRequest(BaseModel):
    """Where a checkpoint is."""

    model_config = ConfigDict(strict=True, extra="forbid")

    folder: str = Field(
        min_length=1,
        description="its folder or URL, below one of BEE_CHECKPOINT_ROOTS; a folder may be relative to one",
    )


class Changed(BaseModel):
    """It is verified, and every worker has it."""

    model: str = Field(description="the model")
    change: str = Field(description="load, reload or unload")


@router.post("/{name}/reload", responses=ANSWERS)
async def reload_model(name: ModelName, service: Serving, response: Response) -> Changed:
    """Read a model's folder anew. It is verified first; if it is bad, the old one stays. No request is dropped."""
    service.registry.get(name)
    return await _ask(service, Change("reload", name), response)


@router.post("/{name}/load", responses=ANSWERS)
async def load_model(name: ModelName, body: LoadRequest, service: Serving, response: Response) -> Changed:
    """Serve another model too."""
    folder = below_roots(body.folder, service.settings.checkpoint_roots)
    return await _ask(service, Change("load", name, str(folder)), response)


@router.post("/{name}/unload", responses=ANSWERS)
async def unload_model(name: ModelName, service: Serving, response: Response) -> Changed:
    """Serve a model no longer; not the default one."""
    service.registry.get(name)
    return await _ask(service, Change("unload", name), response)


async def _ask(service: Service, change: Change, response: Response) -> Changed:
    if not service.ask_parent:
        raise ChangeRefused("this process has no parent that could do it; run the service as `beexformer serve`")
    if problem := await service.ask_parent(asdict(change)):
        raise ChangeRefused(problem)
    response.headers["Connection"] = "close"  # what is asked next is not for this worker, whose successor serves
    return Changed(model=change.name, change=change.kind)
