# The dashboard in a container: docker build -t costmodel . && docker run --rm -p 8501:8501 costmodel
FROM python:3.11-slim

RUN useradd --create-home --uid 10001 costmodel
WORKDIR /srv
COPY pyproject.toml README.md LICENSE app.py ./
COPY .streamlit .streamlit
COPY costmodel costmodel
COPY presets presets
RUN pip install --no-cache-dir ".[app]" \
    && rm -rf /srv/* /srv/.streamlit \
    && python -m compileall -q "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

USER costmodel
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
CMD ["costmodel", "app", "--server.headless=true", "--server.address=0.0.0.0", "--server.port=8501", "--server.fileWatcherType=none"]
