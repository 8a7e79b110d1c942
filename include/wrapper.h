/* Input of bindgen: the part of httpd, APR and APR-util that mod_rwsgi.so uses (build.rs names the
 * items). Never preprocessed by anything else. */

#include "httpd.h"
#include "http_config.h"
#include "http_core.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_request.h"
#include "http_ssl.h"
#include "http_vhost.h"
#include "ap_mmn.h"
#include "ap_mpm.h"
#include "ap_regex.h"
#include "mpm_common.h"
#include "util_filter.h"
#include "util_script.h"

#include "apr_buckets.h"
#include "apr_file_io.h"
#include "apr_hash.h"
#include "apr_pools.h"
#include "apr_portable.h"
#include "apr_strings.h"
#include "apr_tables.h"
#include "apr_uri.h"

#include "shim.h"
