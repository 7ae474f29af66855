/* A page that was opened as a file may not read the others, whose lines the results would show. */
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
