"""An S3 server in this process (moto's), whose writes can be held up or cut off in the middle."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

BUCKET = "answers"
READER = ["s3:GetObject", "s3:ListBucket"]


class ObjectStore:
    """The server at `url` with one empty bucket. `before_put` is called with the environment of each request that
    writes, in a thread of the server, before it is obeyed; what it raises cuts the connection."""

    def __init__(self) -> None:
        moto = pytest.importorskip("moto.moto_server.werkzeug_app", reason="moto[server,s3] is not installed here")
        pytest.importorskip("s3fs", reason="s3fs is not installed here")
        from werkzeug.serving import make_server

        self._app = moto.DomainDispatcherApplication(moto.create_backend_app)
        self.before_put: Callable[[dict[str, Any]], None] = lambda environ: None
        handler = moto.MotoRequestHandler
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._reset()
        self.client("s3").create_bucket(Bucket=BUCKET)

    def client(self, service: str) -> Any:
        """A client of boto3 that may do anything."""
        import boto3

        keys = {"aws_access_key_id": "all", "aws_secret_access_key": "all", "region_name": "us-east-1"}
        return boto3.client(service, endpoint_url=self.url, **keys)

    def read(self, key: str) -> bytes:
        """The object of a name."""
        found: bytes = self.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return found

    def names(self) -> list[str]:
        """The names of all objects."""
        return [one["Key"] for one in self.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def unfinished(self) -> list[str]:
        """The names of uploads that were begun and neither finished nor given up."""
        return [one["Key"] for one in self.client("s3").list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]

    @contextmanager
    def user(self, *actions: str) -> Iterator[dict[str, str]]:
        """The environment of one who may do only this; from then on the server asks who somebody is."""
        iam, name = self.client("iam"), f"user{len(actions)}"
        iam.create_user(UserName=name)
        allowed = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        policy = {"Version": "2012-10-17", "Statement": [allowed]}
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
            yield {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def close(self) -> None:
        """End the server; what it held is gone."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _reset(self) -> None:
        """What moto keeps is of the process, not of the server."""
        from moto.moto_api._internal.models import moto_api_backend

        moto_api_backend.reset()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "PUT":
            self.before_put(environ)
        answered: Iterable[bytes] = self._app(environ, start_response)
        return answered
