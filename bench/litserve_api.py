"""The contender that is a LitAPI: LitServe starts its workers anew, and they have to find it in a module."""

import litserve
from contenders import classify, engine_of

from beexformer.app.schemas import ClassifyRequest
from beexformer.model.answer import Answer


class API(litserve.LitAPI):
    """The engine, with the service's own request and answer."""

    def __init__(self, folder: str | None) -> None:
        super().__init__(api_path="/classify")
        self.folder = folder

    def setup(self, device: str) -> None:
        self.engine = engine_of(self.folder)

    def decode_request(self, request: ClassifyRequest) -> ClassifyRequest:
        return request

    def predict(self, x: ClassifyRequest) -> Answer:
        return classify(self.engine, x)

    def encode_response(self, output: Answer) -> Answer:
        return output


def serve(folder: str | None, port: int) -> None:
    """Until it is told to stop."""
    server = litserve.LitServer(API(folder), accelerator="cpu", workers_per_device=1)
    server.run(port=port, log_level="warning", generate_client_file=False, access_log=False)
