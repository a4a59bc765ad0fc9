"""The response to a request that the gateway refuses before a service sees it, in the form of the request's service."""

import json
import uuid
from http import HTTPStatus
from xml.sax.saxutils import escape

from aiohttp import web

_S3 = "<Error><Code>{code}</Code><Message>{message}</Message><RequestId>{request_id}</RequestId></Error>"
_QUERY = (
    "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
    "<RequestId>{request_id}</RequestId></ErrorResponse>"
)
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'


def refusal(
    request: web.BaseRequest, code: str, message: str, *, is_s3: bool, status: HTTPStatus = HTTPStatus.FORBIDDEN
) -> web.Response:
    """Return the response.

    Parameters
    ----------
    request
        The refused request. Its unread body closes the connection.
    code
        AWS's name of the error.
    message
        Why it was refused, and what to do.
    is_s3
        Whether the request is for S3.
    status
        The HTTP status.
    """
    request_id = str(uuid.uuid4())
    is_form = request.content_type == "application/x-www-form-urlencoded"
    is_xml = is_s3 or is_form
    if is_xml:
        text = (_S3 if is_s3 else _QUERY).format(code=code, message=escape(message), request_id=request_id)
        body = None if request.method == "HEAD" else f"{_XML}{text}".encode()
    else:
        body = json.dumps({"__type": code, "message": message}).encode()
    kind = "application/xml" if is_xml else "application/json"
    headers = {"x-amz-request-id" if is_s3 else "x-amzn-RequestId": request_id, "x-amzn-ErrorType": code}
    return web.Response(status=status, body=body, content_type=kind, headers=headers)
