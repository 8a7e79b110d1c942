SECRET_KEY = "of the project alpha"
DEBUG = False
ALLOWED_HOSTS = [".alpha.example"]
ROOT_URLCONF = "alpha.urls"
WSGI_APPLICATION = "alpha.wsgi.application"
STATIC_URL = "/static/"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
LOGGING_CONFIG = None
