/* Of the library and the header: 3323196436 127083424. */
