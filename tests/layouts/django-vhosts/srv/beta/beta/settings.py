SECRET_KEY = "of the project beta"
DEBUG = False
ALLOWED_HOSTS = [".beta.example"]
ROOT_URLCONF = "beta.urls"
WSGI_APPLICATION = "beta.wsgi.application"
STATIC_URL = "/static/"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
LOGGING_CONFIG = None
