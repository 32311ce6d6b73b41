# Two stages: the first installs into a virtual environment, the second takes only that.
# docker build -t pointsman . && docker run --read-only -p 50061:50061 -e OPENAI_API_KEY pointsman
FROM python:3.12-slim AS build
WORKDIR /source
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY client/python client/python
COPY server server
RUN python -m venv /opt/pointsman \
    && /opt/pointsman/bin/pip install --no-compile -c constraints.txt '.[server]'

FROM python:3.12-slim
LABEL org.opencontainers.image.title="pointsman" \
      org.opencontainers.image.description="An LLM router that runs as a gRPC microservice" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/pointsman /opt/pointsman
ENV PATH=/opt/pointsman/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, so that Kubernetes can see that it is not root. Nothing is written: the root can be read-only.
USER 65532:65532
EXPOSE 50061
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["pointsman", "health", "--server", "127.0.0.1:50061"]
# In exec form, so that SIGTERM reaches the server itself.
ENTRYPOINT ["pointsman"]
CMD ["serve", "--listen", "0.0.0.0:50061"]
