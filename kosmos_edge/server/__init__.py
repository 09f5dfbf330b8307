"""The HTTP server: one model behind the routes of OpenAI, Ollama, Moondream and our own (docs/server.md).

Needs the extra `server` (starlette, uvicorn, prometheus-client).
"""
