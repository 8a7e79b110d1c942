"""Settings of the sample site. Everything that differs per installation is in the environment."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
# Everything the site writes: the database, uploads and collected static files.
DATA_DIR = Path(os.environ.get("SITE_DATA", BASE_DIR / "data"))

SECRET_KEY = os.environ["SITE_SECRET_KEY"]
DEBUG = os.environ.get("SITE_DEBUG") == "1"
ALLOWED_HOSTS = os.environ.get("SITE_HOSTS", "localhost,127.0.0.1,[::1]").split(",")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "notes",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "site.sqlite3",
        # Several httpd processes write to one file: wait for each other instead of failing.
        "OPTIONS": {"timeout": 20},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = DATA_DIR / "static"
MEDIA_ROOT = DATA_DIR / "media"

# Without this Django mails errors to ADMINS and logs nothing while DEBUG is off. The stream is
# sys.stderr, which the gateway sends to the error log of the request's virtual host.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "level": os.environ.get("SITE_LOG_LEVEL", "ERROR"),
        }
    },
    "root": {"handlers": ["stderr"], "level": "INFO"},
}
