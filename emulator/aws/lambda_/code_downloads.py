"""Downloads of archives: GetFunction and GetLayerVersion return a URL of the deployed archive."""

import hashlib
import hmac
import secrets
from pathlib import Path

from aiohttp import web

# The first segment of the paths. No bucket can have this name.
DOWNLOAD_PREFIX = "_lambda-code"


class CodeDownloads:
    """Serves the archives below unguessable URLs, which need no signature.

    Parameters
    ----------
    endpoint_url
        The URL of the endpoint.
    folders
        The folders that have the archives.
    """

    def __init__(self, endpoint_url: str, *folders: Path) -> None:
        self._endpoint_url = endpoint_url
        self._folders = {folder.name: folder for folder in folders}
        self._secret = secrets.token_bytes(32)

    def url(self, archive: Path) -> str:
        """Return the URL of an archive."""
        path = f"{archive.parent.name}/{archive.name}"
        return f"{self._endpoint_url}/{DOWNLOAD_PREFIX}/{self._token(path)}/{path}"

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the route of the downloads."""
        return [web.get(f"/{DOWNLOAD_PREFIX}/{{token}}/{{folder}}/{{name}}", self._download)]

    async def _download(self, request: web.Request) -> web.StreamResponse:
        token, folder, name = (request.match_info[part] for part in ("token", "folder", "name"))
        if not hmac.compare_digest(token.encode(errors="replace"), self._token(f"{folder}/{name}").encode()):
            raise web.HTTPForbidden
        archive = self._folders[folder] / name
        if not archive.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(archive, headers={"Content-Type": "application/zip"})

    def _token(self, path: str) -> str:
        return hmac.digest(self._secret, path.encode(errors="replace"), hashlib.sha256).hex()
